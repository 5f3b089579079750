package inject

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inject/sigv4"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/secret"
)

// signing is the transform that signs requests to AWS again. The agent has the
// placeholder for its access key id and for its secret key, and signs with it;
// by the id the rule is found.
const signing = "aws-sigv4"

func (r *rule) signs() bool { return r.Transform.Type == signing }

// AccessKey is what a secret for AWS is made of: the secret key as it is, with
// the id from the config, or a JSON object as AWS's own tools print it (AWS
// CLI, "Sourcing credentials with an external process").
type AccessKey struct {
	ID     string `json:"AccessKeyId"`
	Secret string `json:"SecretAccessKey"`
	Token  string `json:"SessionToken"`
}

// ParseAccessKey reads a secret. Its errors hold nothing of it.
func ParseAccessKey(v secret.Value, id string) (AccessKey, error) {
	text := v.RevealBytes()
	k := AccessKey{ID: id, Secret: string(text)}
	if len(text) > 0 && text[0] == '{' {
		k = AccessKey{}
		if err := json.Unmarshal(text, &k); err != nil || k.Secret == "" {
			return AccessKey{}, errors.New("the secret is no JSON object with AccessKeyId and SecretAccessKey")
		}
		if k.ID == "" {
			k.ID = id
		}
	}
	if k.ID == "" {
		return AccessKey{}, errors.New("there is no access key id: set access_key_id in the transform")
	}
	return k, nil
}

// Signature is a request that was signed again.
type Signature struct {
	Name   string // of the secret
	signer *sigv4.Signer
}

// Body returns body with every chunk signed again, where chunks are signed. The
// length stays the same.
func (s *Signature) Body(body io.Reader) io.Reader {
	if !s.signer.Signed() {
		return body
	}
	return s.signer.Chunks(body)
}

// Signs reports whether a rule for the host signs requests.
func (in *Injector) Signs(host hostname.Name) bool {
	return slices.ContainsFunc(in.boundTo(host), (*rule).signs)
}

// Sign signs r again, whose header and URL are those that Head made of req and
// are changed in place, when it is signed with the placeholder of a rule. body
// is the whole body, when it is known. Without such a rule it returns nil. An
// error says why the request must not be sent.
func (in *Injector) Sign(ctx context.Context, req *inspect.Request, r *http.Request, body []byte) (*Signature, error) {
	rules := slices.DeleteFunc(in.boundTo(req.Host), func(r *rule) bool { return !r.signs() })
	if len(rules) == 0 {
		return nil, nil
	}
	claim, err := sigv4.Read(r)
	if claim == nil || err != nil {
		return nil, err
	}
	i := slices.IndexFunc(rules, func(r *rule) bool { return r.Placeholder == claim.ID && r.covers(req) })
	if i < 0 {
		return nil, nil // a credential of another's, which the policy has judged
	}
	v, err := in.current(ctx, rules[i])
	if err != nil {
		return nil, err
	}
	key, err := ParseAccessKey(v, rules[i].Transform.Settings["access_key_id"].Text)
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot sign: %w", rules[i].Env, err)
	}
	creds := sigv4.Credentials{ID: key.ID, Secret: []byte(key.Secret), Token: []byte(key.Token)}
	s, err := sigv4.Sign(r, claim, creds, body, time.Now())
	if err != nil {
		return nil, err
	}
	return &Signature{Name: rules[i].Env, signer: s}, nil
}

// ownSignature reports whether a parameter of a query is a part of a signature
// that is made again.
func (x *examination) ownSignature(name string) bool {
	switch strings.ToLower(name) {
	case "x-amz-credential", "x-amz-signature", "x-amz-security-token":
	default:
		return false
	}
	u := x.c.Request.URL
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if strings.EqualFold(unescape(name), "x-amz-credential") {
			id, _, _ := strings.Cut(unescape(value), "/")
			return slices.ContainsFunc(x.bound, func(r *rule) bool { return r.signs() && r.Placeholder == id })
		}
	}
	return false
}
