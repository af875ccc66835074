package topology

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// repository is where snapshots are kept. It becomes file:///absolute/path or s3://bucket/prefix?….
var repository = &typ{
	name: "a repository", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		text := s.String()
		scheme, rest, ok := strings.Cut(text, "://")
		switch {
		case !ok && strings.HasPrefix(text, "s3:"):
			return nil, faultf("%q is not a repository; write s3://%s", text, strings.TrimPrefix(text, "s3:"))
		case !ok, scheme == "file":
			if !ok {
				rest = text
			}
			if _, err := parseText(literal(rest, "")); err != nil {
				return nil, faultf("%q is not a repository: it has no path", text)
			}
			if strings.ContainsAny(rest, "?#%") {
				return nil, faultf("%q is not a repository: a path with ?, # or %% in it cannot be one", text)
			}
			return "file://" + absolute(rest, s.directory), nil
		case scheme == "s3":
			return parseS3(text)
		}
		return nil, faultf("%q is not a repository like file:///mnt/backup or s3://bucket/prefix", text)
	},
}

var s3Options = []string{"endpoint", "region", "path_style"}

func parseS3(text string) (any, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Fragment != "" {
		return nil, faultf("%q is not a repository like s3://bucket/prefix", text)
	}
	if u.User != nil {
		return nil, faultf("credentials do not belong into a repository; S3's come from the environment")
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, faultf("%q is not a repository: what follows the ? is not of the form a=b&c=d", text)
	}
	for name, values := range options {
		if !slices.Contains(s3Options, name) {
			return nil, fault{fmt.Sprintf("unknown option %q; S3 has %s", name, strings.Join(s3Options, ", ")), nearest(name, s3Options)}
		}
		if len(values) != 1 || values[0] == "" {
			return nil, faultf("the option %s needs one value", name)
		}
	}
	if endpoint := options.Get("endpoint"); endpoint != "" {
		if e, err := url.Parse(endpoint); err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" {
			return nil, faultf("the endpoint %q is not a URL like https://s3.example.com", endpoint)
		}
	}
	if style := options.Get("path_style"); style != "" && style != "true" && style != "false" {
		return nil, faultf("path_style is true or false")
	}
	return text, nil
}
