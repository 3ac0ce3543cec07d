package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// fromFile reads the configuration file: a YAML mapping from flag names to values. A key without a value counts as not
// there, so that etcd's sample file, which lists every key, works where it sets only what is supported.
func (s *Set) fromFile(name string, read func(string) ([]byte, error)) ([]setting, error) {
	data, err := read(name)
	if err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = path.Err
		}
		return nil, bad("cannot read the configuration file %s: %s", name, err)
	}
	values, err := decode(data)
	if err != nil {
		return nil, bad("the configuration file %s is not valid YAML: %s", name, flatten(err.Error()))
	}
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var settings []setting
	for _, key := range keys {
		flag := s.all.Lookup(key)
		known := flag != nil && key != flagConfigFile && !askedFor(key)
		if values[key] == nil && (known || isEtcdFileKey(key)) {
			continue
		}
		if !known {
			if isEtcdFileKey(key) {
				return nil, bad("key %s in %s is an etcd setting that Holdfast does not support yet: remove it", key, name)
			}
			return nil, bad("unknown key %s in the configuration file %s (the keys are the flags' names, see --help)", key, name)
		}
		value, ok := scalar(values[key], flag.Value.Type() == "duration")
		if !ok {
			return nil, bad("key %s in %s must be one value, not a list or a mapping", key, name)
		}
		settings = append(settings, setting{flag, value, "key " + key + " in " + name})
	}
	return settings, nil
}

// decode reads YAML with numbers as written; a key that is there twice is an error.
func decode(data []byte) (map[string]any, error) {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(asJSON))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		return nil, errors.New("the top level must be a mapping from keys to values")
	}
	return values, nil
}

// scalar is a value as a flag would have it. A bare number for a duration is nanoseconds, as in etcd's file.
func scalar(value any, duration bool) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	case json.Number:
		if duration {
			return v.String() + "ns", true
		}
		return v.String(), true
	}
	return "", false
}

// flatten puts a text on one line.
func flatten(text string) string { return strings.Join(strings.Fields(text), " ") }
