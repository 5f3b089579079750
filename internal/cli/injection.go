package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/agentcage/agentcage/internal/atomicfile"
	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/control"
	"github.com/agentcage/agentcage/internal/gateway"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/secret"
	"github.com/agentcage/agentcage/internal/secret/source"
	"github.com/agentcage/agentcage/internal/secret/store"
)

// vault has the values of a running cage's secrets. After the gateway has
// confined itself nothing can be run or read any more, so a value is looked up
// once, and again only where its rule names another source.
type vault struct {
	cage  string
	kind  string // of the store
	store store.Store

	mu   sync.Mutex
	held map[string]held
}

type held struct {
	source string
	value  secret.Value // zero when it was removed
}

// openVault finds every secret of a config, makes the placeholders that it
// lacks, and writes them into it. Secrets that are missing are one error that
// names all of them.
func openVault(ctx context.Context, cfg *config.Config, cage, kind string) (*vault, error) {
	v := &vault{cage: cage, kind: kind, held: make(map[string]held)}
	if len(cfg.Injection.Rules) == 0 {
		return v, nil
	}
	if err := keepPlaceholders(cfg, cage); err != nil {
		return nil, err
	}
	var missing []string
	for _, r := range cfg.Injection.Rules {
		switch _, err := v.find(ctx, r); {
		case errors.Is(err, store.ErrNotFound) && r.Source == "":
			missing = append(missing, r.Env)
		case err != nil:
			return nil, err
		}
	}
	if len(missing) > 0 {
		return nil, missingSecrets(cage, missing)
	}
	return v, nil
}

// missingSecrets has the original's words.
func missingSecrets(cage string, names []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "missing secrets for cage '%s':", cage)
	for _, n := range names {
		fmt.Fprintf(&b, "\n  %s", n)
	}
	b.WriteString("\nCreate them with:")
	for _, n := range names {
		fmt.Fprintf(&b, "\n  agentcage secret set %s %s", cage, n)
	}
	return errors.New(b.String())
}

func (v *vault) find(ctx context.Context, r config.InjectionRule) (secret.Value, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h, ok := v.held[r.Env]; ok && h.source == r.Source {
		if h.value.IsZero() {
			return h.value, missingSecrets(v.cage, []string{r.Env})
		}
		return h.value, nil
	}
	from, err := source.Parse(r.Source)
	if err != nil {
		return secret.Value{}, fmt.Errorf("cannot get secret %s: its source: %w", r.Env, err)
	}
	if v.store == nil && from.Kind == source.Store {
		if v.store, err = openStore(v.kind); err != nil {
			return secret.Value{}, err
		}
	}
	b, err := from.Get(ctx, v.store, v.cage, r.Env)
	if err != nil {
		return secret.Value{}, err
	}
	value, err := secret.New(b)
	if err != nil {
		return secret.Value{}, withHint(fmt.Errorf("cannot use secret %s: %w", r.Env, err), secret.HintShort)
	}
	v.held[r.Env] = held{r.Source, value}
	return value, nil
}

// secret is gateway.Options.Secret.
func (v *vault) secret(r config.InjectionRule) (secret.Value, error) {
	return v.find(context.Background(), r)
}

// keep is gateway.Options.KeepSecret. Only what came from the store can go
// back.
func (v *vault) keep(r config.InjectionRule, value secret.Value) error {
	if r.Source != "" {
		return fmt.Errorf("secret %s is not in the store, where its new value could be kept", r.Env)
	}
	if err := v.store.Set(context.Background(), v.cage, r.Env, value.RevealBytes()); err != nil {
		return err
	}
	v.change(r.Env, value)
	return nil
}

// change is for a value that comes by another way: a zero one was removed.
func (v *vault) change(env string, value secret.Value) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held[env] = held{v.held[env].source, value}
}

// writes are the directories that the gateway must still be able to write to
// when it is confined: for placeholders of rules that a reload brings, and for
// a refresh token that was replaced.
func (v *vault) writes() []string {
	var dirs []string
	if dir, err := stateDir("cages", v.cage); err == nil && len(v.held) > 0 {
		dirs = append(dirs, dir)
	}
	if dir, err := dataDir(); err == nil && v.store != nil {
		dirs = append(dirs, dir)
	}
	return dirs
}

// outside refuses a key of the secrets that the agent could read.
func (v *vault) outside(spec cage.Spec) error {
	if v.store == nil {
		return nil
	}
	trees := slices.Concat([]string{spec.Dir}, spec.ReadWrite, spec.ReadOnly)
	for _, dir := range []func(...string) (string, error){dataDir, configDir} {
		path, err := dir()
		if err != nil {
			return err
		}
		if inside(path, trees) {
			return withHint(fmt.Errorf("cannot use the secrets in %s: the agent could read them there", path),
				"keep XDG_DATA_HOME and XDG_CONFIG_HOME outside of the working directory and of what --rw and --ro show")
		}
	}
	return nil
}

// keepPlaceholders gives every rule without a placeholder the one that it had
// the last time, or a new one, so that what an agent wrote down goes on working.
func keepPlaceholders(cfg *config.Config, cage string) error {
	if !slices.ContainsFunc(cfg.Injection.Rules, func(r config.InjectionRule) bool { return r.Placeholder == "" }) {
		return nil
	}
	dir, err := stateDir("cages", cage)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "placeholders.json")
	kept := make(map[string]string)
	switch data, err := os.ReadFile(path); {
	case os.IsNotExist(err):
	case err != nil:
		return fmt.Errorf("cannot read the placeholders: %w", err)
	case json.Unmarshal(data, &kept) != nil:
		return withHint(fmt.Errorf("cannot read the placeholders: %s is damaged", path), "remove it: new ones will be made")
	}
	for i := range cfg.Injection.Rules {
		r := &cfg.Injection.Rules[i]
		if r.Placeholder != "" {
			continue
		}
		if env, ok := secret.ParsePlaceholder(kept[r.Env]); !ok || env != r.Env {
			kept[r.Env] = secret.NewPlaceholder(r.Env)
		}
		r.Placeholder = kept[r.Env]
	}
	data, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, append(data, '\n')); err != nil {
		return fmt.Errorf("cannot keep the placeholders: %w", err)
	}
	return nil
}

// placeholderEnv are the variables in which the agent finds its placeholders.
// For AWS it needs one for the access key id as well, by which the gateway
// knows which secret a request is to be signed with.
func placeholderEnv(cfg *config.Config) []string {
	var env []string
	for _, r := range cfg.Injection.Rules {
		env = append(env, r.Env+"="+r.Placeholder)
		if r.Transform.Type != "aws-sigv4" {
			continue
		}
		id := r.Transform.Settings["access_key_id_env"].Text
		if id == "" {
			id = "AWS_ACCESS_KEY_ID"
		}
		env = append(env, id+"="+r.Placeholder)
	}
	return env
}

// knownHosts are the hosts of those who issue well-known secrets, for --secret
// without a host.
var knownHosts = map[string][]string{
	"ANTHROPIC_API_KEY":  {"api.anthropic.com"},
	"DEEPSEEK_API_KEY":   {"api.deepseek.com"},
	"GEMINI_API_KEY":     {"generativelanguage.googleapis.com"},
	"GH_TOKEN":           {"api.github.com", "github.com"},
	"GITHUB_TOKEN":       {"api.github.com", "github.com"},
	"GITLAB_TOKEN":       {"gitlab.com"},
	"GOOGLE_API_KEY":     {"generativelanguage.googleapis.com"},
	"GROQ_API_KEY":       {"api.groq.com"},
	"HF_TOKEN":           {"huggingface.co"},
	"MISTRAL_API_KEY":    {"api.mistral.ai"},
	"OPENAI_API_KEY":     {"api.openai.com"},
	"OPENROUTER_API_KEY": {"openrouter.ai"},
	"PERPLEXITY_API_KEY": {"api.perplexity.ai"},
	"XAI_API_KEY":        {"api.x.ai"},
}

// addSecret adds a rule as --secret names it: NAME, NAME@HOST,HOST,
// NAME=SOURCE, NAME@HOST=SOURCE. A name that the config has a rule for needs
// nothing else. The hosts are allowed, exactly, as they would be no use
// otherwise.
func addSecret(cfg *config.Config, text string) error {
	head, from, _ := strings.Cut(text, "=")
	name, at, hasHosts := strings.Cut(head, "@")
	if err := checkSecretName(name); err != nil {
		return err
	}
	bad := func(err error, hints ...string) error {
		return &exitError{exitUsage, withHint(fmt.Errorf("cannot use --secret %s: %w", head, err), hints...)}
	}
	if slices.ContainsFunc(cfg.Injection.Rules, func(r config.InjectionRule) bool { return r.Env == name }) {
		if hasHosts || from != "" {
			return bad(errors.New("the config has a rule for it, which decides"), "write --secret "+name+" alone, or leave it out")
		}
		return nil
	}
	if _, err := source.Parse(from); err != nil {
		return bad(err)
	}
	if from == "store" {
		from = ""
	}
	hosts := knownHosts[name]
	if hasHosts {
		hosts = strings.Split(at, ",")
	}
	if len(hosts) == 0 {
		return bad(errors.New("nobody knows which host it is for"), "write --secret "+name+"@HOST")
	}
	rule := config.InjectionRule{Env: name, Source: from, Foreign: "block"}
	for _, h := range hosts {
		t, err := target(h)
		if err != nil {
			return bad(err)
		}
		rule.InjectTo = append(rule.InjectTo, t)
		allow := "=" + t.Host.String()
		if t.Zone {
			allow = t.Host.String()
		}
		if err := cfg.Allow(allow); err != nil {
			return bad(err)
		}
	}
	cfg.Injection.Rules = append(cfg.Injection.Rules, rule)
	return nil
}

// target reads a host as inject_to has it.
func target(s string) (config.Target, error) {
	rest, zone := strings.CutPrefix(s, ".")
	host, err := hostname.Parse(rest)
	return config.Target{Host: host, Zone: zone}, err
}

// listenForCommands lets `secret set` reach a gateway that runs.
func listenForCommands(v *vault, gw *gateway.Gateway) (*control.Server, error) {
	dir, err := controlDir(v.cage)
	if err != nil {
		return nil, err
	}
	return control.Listen(dir, map[string]control.Handler{
		opSecret: func(_ context.Context, args json.RawMessage) (any, error) {
			var change secretChange
			if err := json.Unmarshal(args, &change); err != nil {
				return nil, errors.New("cannot read the message: it is malformed")
			}
			return nil, v.apply(gw, change)
		},
	})
}

// apply puts a change of a secret in force. Only one that comes from the store
// is changed by a command on the store.
func (v *vault) apply(gw *gateway.Gateway, change secretChange) error {
	v.mu.Lock()
	is, used := v.held[change.Name]
	v.mu.Unlock()
	switch {
	case !used:
		return nil // no rule of this cage is for it
	case is.source != "":
		return fmt.Errorf("it has secret %s from %s", change.Name, is.source)
	}
	if change.Value == nil {
		v.change(change.Name, secret.Value{})
		return gw.UnsetSecret(change.Name)
	}
	value, err := secret.New(change.Value)
	if err != nil {
		return err
	}
	if err := gw.SetSecret(change.Name, value); err != nil {
		return err
	}
	v.change(change.Name, value)
	return nil
}

// redactor takes secrets out of what is recorded. The log is opened before
// there is a gateway that knows them.
type redactor struct{ gw *gateway.Gateway }

func (r *redactor) redact(s string) string {
	if r.gw == nil {
		return s
	}
	return r.gw.Redact(s)
}

var _ audit.Redactor = (*redactor)(nil).redact
