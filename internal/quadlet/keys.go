package quadlet

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
)

type (
	// keys are what a section knows.
	keys map[string]form
	// sections are what a file of one kind knows.
	sections map[string]keys
)

// The forms. What ends in the command line of podman has its $ doubled; what
// systemd keeps for itself has not.
var (
	name    = form{least: 1, most: 1}                       // systemd's own, taken whole
	list    = form{least: 1, words: true, check: noSpecial} // names of units, with spaces between
	whole   = form{least: 1, most: 1, command: true}        // an argument of podman's, taken whole
	volume  = form{least: 1, most: 1, command: true, check: hasSource}
	words   = form{least: 1, words: true, command: true}                      // arguments, with quotes where needed
	word    = form{least: 1, most: 1, words: true, command: true}             // one such
	assign  = form{least: 2, most: 2, words: true, command: true, pair: true} // NAME=VALUE
	boolean = form{least: 1, most: 1, check: isBool}                          // true or false
	number  = form{least: 1, most: 1, check: isNumber}                        // a whole number
)

func isBool(s string) error {
	if s != "true" && s != "false" {
		return errors.New("it is neither true nor false")
	}
	return nil
}

func isNumber(s string) error {
	if _, err := strconv.ParseUint(s, 10, 31); err != nil {
		return errors.New("it is no whole number")
	}
	return nil
}

// hasSource refuses a volume without a source, which the generator makes an
// anonymous one of.
func hasSource(s string) error {
	if strings.HasPrefix(s, ":") {
		return errors.New("it has no source")
	}
	return nil
}

// noSpecial is for names of units, in which a quote or a specifier has no place.
func noSpecial(s string) error {
	if !plain(s) {
		return errors.New("it is no name of a unit")
	}
	return nil
}

// kinds are the files that agentcage writes, by their endings. The keys are
// those that it has use for, out of those of podman-systemd.unit(5) 5.4; a key
// that is not here is a mistake of ours, which the generator would find later.
var kinds = map[string]sections{
	".container": {"Unit": unitKeys, "Container": containerKeys, "Service": serviceKeys, "Install": installKeys, "Quadlet": quadletKeys},
	".network":   {"Unit": unitKeys, "Network": networkKeys, "Service": serviceKeys, "Install": installKeys, "Quadlet": quadletKeys},
	".volume":    {"Unit": unitKeys, "Volume": volumeKeys, "Service": serviceKeys, "Install": installKeys, "Quadlet": quadletKeys},
}

// Known lists the keys of each section of a kind of file, by its ending.
func Known(ending string) map[string][]string {
	all := map[string][]string{}
	for section, known := range kinds[ending] {
		all[section] = slices.Sorted(maps.Keys(known))
	}
	return all
}

var unitKeys = keys{
	"Description": name, "Documentation": name, "Requires": list, "Wants": list, "After": list, "Before": list, "BindsTo": list,
	"PartOf": list, "StartLimitIntervalSec": number, "StartLimitBurst": number,
}

var serviceKeys = keys{
	"Restart": name, "RestartMode": name, "RestartSec": number, "TimeoutStartSec": number, "TimeoutStopSec": number, "SuccessExitStatus": name,
	"ExecStartPre": words, "ExecStartPost": words, "ExecStopPost": words, "SyslogIdentifier": name,
}

var installKeys = keys{"WantedBy": list, "RequiredBy": list}

var quadletKeys = keys{"DefaultDependencies": boolean}

var networkKeys = keys{
	"NetworkName": whole, "Driver": whole, "Subnet": whole, "Gateway": whole, "Internal": boolean, "IPv6": boolean,
	"DisableDNS": boolean, "Label": assign, "PodmanArgs": words, "Options": whole,
}

var volumeKeys = keys{"VolumeName": whole, "Label": assign, "PodmanArgs": words}

var containerKeys = keys{
	"ContainerName": whole, "HostName": whole, "Image": whole, "Exec": words, "Entrypoint": whole, "WorkingDir": whole,
	"Environment": assign, "Label": assign, "PodmanArgs": words,
	"Network": whole, "IP": whole, "IP6": whole, "DNS": whole, "PublishPort": whole, "AddHost": whole, "Sysctl": word,
	"Volume": volume, "Mount": whole, "Tmpfs": whole, "Secret": words, "Mask": whole,
	"User": whole, "Group": whole, "UserNS": whole, "AddCapability": words, "DropCapability": words, "NoNewPrivileges": boolean,
	"ReadOnly": boolean, "ReadOnlyTmpfs": boolean, "SecurityLabelDisable": boolean, "SeccompProfile": whole,
	"Ulimit": whole, "ShmSize": whole, "PidsLimit": number, "RunInit": boolean,
	"Notify": whole, "HealthCmd": whole, "HealthInterval": whole, "HealthTimeout": whole, "HealthRetries": number,
	"HealthStartPeriod": whole, "HealthOnFailure": whole, "StopSignal": whole, "StopTimeout": number,
	"LogDriver": whole, "Pull": whole, "Timezone": whole,
}
