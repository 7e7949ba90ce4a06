// A stand-in for `helm template`: Go's text/template and sprig, as Helm has them, with include and toYaml.
//
//	apt-get install golang-go golang-github-masterminds-sprig-dev golang-github-ghodss-yaml-dev
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o helm_template tests/doubles/helm_template.go
//	./helm_template deploy/helm/wattribute RELEASE NAMESPACE [VALUES...]
//
// Debian packages both libraries, and no helm. The values' schema isn't looked at here.
package main

import (
	"bytes"
	"fmt"
	"io/ioutil"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"github.com/ghodss/yaml"
)

func merge(base, over map[string]interface{}) {
	for k, v := range over {
		if m, ok := v.(map[string]interface{}); ok {
			if b, ok := base[k].(map[string]interface{}); ok {
				merge(b, m)
				continue
			}
		}
		base[k] = v
	}
}

func load(path string) map[string]interface{} {
	text, err := ioutil.ReadFile(path)
	if err != nil {
		panic(err)
	}
	found := map[string]interface{}{}
	if err := yaml.Unmarshal(text, &found); err != nil {
		panic(err)
	}
	return found
}

func main() { // chart release namespace [values.yaml...]
	chart := os.Args[1]
	values := load(filepath.Join(chart, "values.yaml"))
	for _, more := range os.Args[4:] {
		merge(values, load(more))
	}
	about := load(filepath.Join(chart, "Chart.yaml"))
	data := map[string]interface{}{
		"Values":  values,
		"Release": map[string]interface{}{"Name": os.Args[2], "Namespace": os.Args[3], "Service": "Helm"},
		"Chart":   map[string]interface{}{"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
	}
	t := template.New("chart").Option("missingkey=zero")
	funcs := sprig.TxtFuncMap()
	funcs["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := t.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	funcs["toYaml"] = func(v interface{}) string {
		out, err := yaml.Marshal(v)
		if err != nil {
			return ""
		}
		return strings.TrimSuffix(string(out), "\n")
	}
	t.Funcs(funcs)
	paths, _ := filepath.Glob(filepath.Join(chart, "templates", "*"))
	sort.Strings(paths)
	for _, path := range paths {
		text, _ := ioutil.ReadFile(path)
		if _, err := t.New(filepath.Base(path)).Parse(string(text)); err != nil {
			panic(err)
		}
	}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		if err := t.ExecuteTemplate(&out, name, data); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if text := strings.TrimSpace(out.String()); text != "" && strings.HasSuffix(name, ".yaml") {
			fmt.Printf("---\n# Source: %s/templates/%s\n%s\n", about["name"], name, text)
		} else if name == "NOTES.txt" {
			fmt.Fprintln(os.Stderr, text)
		}
	}
}
