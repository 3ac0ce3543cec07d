package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Role says what URLs are for; the rules differ.
type Role int

const (
	// Listen URLs are bound: the host must be an IP address or localhost.
	Listen Role = iota
	// Advertise URLs are told to others: the host may be a name.
	Advertise
)

// URLs is a pflag.Value of comma-separated URLs under etcd's rules: scheme http, a host, a port, no path. https and unix
// sockets are refused with a line that says so. The list is sorted, as etcd sorts it.
type URLs struct {
	role Role
	list []url.URL
}

// NewURLs makes a value with a default; it panics if the default breaks the rules. Give none for no default.
func NewURLs(role Role, list ...string) *URLs {
	u := &URLs{role: role}
	if len(list) > 0 {
		if err := u.Set(strings.Join(list, ",")); err != nil {
			panic(err)
		}
	}
	return u
}

// Set replaces the list. An empty text gives an empty list.
func (u *URLs) Set(text string) error {
	if text == "" {
		u.list = nil
		return nil
	}
	list, err := parseURLs(strings.Split(text, ","))
	if err != nil {
		return err
	}
	for _, one := range list {
		if err := u.role.check(one); err != nil {
			return err
		}
	}
	u.list = list
	return nil
}

// String is the list joined by commas.
func (u *URLs) String() string { return strings.Join(u.Strings(), ",") }

// Type names the value in the help.
func (u *URLs) Type() string { return "urls" }

// List is the URLs; do not change them.
func (u *URLs) List() []url.URL { return u.list }

// Strings is the URLs as text.
func (u *URLs) Strings() []string {
	texts := make([]string, len(u.list))
	for i := range u.list {
		texts[i] = u.list[i].String()
	}
	return texts
}

// HostPorts is the "host:port" of each URL, for net.Listen or a dial.
func (u *URLs) HostPorts() []string {
	hosts := make([]string, len(u.list))
	for i := range u.list {
		hosts[i] = u.list[i].Host
	}
	return hosts
}

// parseURLs applies the rules that hold for every role.
func parseURLs(texts []string) ([]url.URL, error) {
	list := make([]url.URL, 0, len(texts))
	for _, text := range texts {
		one, err := parseURL(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b url.URL) int { return strings.Compare(a.String(), b.String()) })
	return list, nil
}

func parseURL(text string) (url.URL, error) {
	if text == "" {
		return url.URL{}, errors.New("an entry of the list is empty: write http://host:port[,http://host:port]")
	}
	u, err := url.Parse(text)
	if err != nil {
		return url.URL{}, fmt.Errorf("%s is not a URL: write http://host:port", text)
	}
	switch u.Scheme {
	case "http":
	case "https":
		return url.URL{}, fmt.Errorf("%s: TLS is not supported yet, use http", text)
	case "unix", "unixs":
		return url.URL{}, fmt.Errorf("%s: unix sockets are not supported, use http://host:port", text)
	default:
		return url.URL{}, fmt.Errorf("%s: the scheme must be http, write http://host:port", text)
	}
	_, port, err := net.SplitHostPort(u.Host)
	if err != nil || port == "" {
		return url.URL{}, fmt.Errorf("%s has no port: write http://host:port", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return url.URL{}, fmt.Errorf("%s: the port must be a number from 0 to 65535", text)
	}
	if u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return url.URL{}, fmt.Errorf("%s: a URL here has no path and nothing after the port", text)
	}
	return *u, nil
}

// check applies the rules of the role; the URL has a host and a port.
func (r Role) check(u url.URL) error {
	host := u.Hostname()
	switch {
	case r == Listen && host != "localhost" && net.ParseIP(host) == nil:
		return fmt.Errorf("%s: the host of a URL to listen on must be an IP address, for example http://0.0.0.0:%s",
			u.String(), u.Port())
	case host == "":
		return fmt.Errorf("%s has no host: others cannot reach it", u.String())
	}
	return nil
}
