package project

import (
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"
)

// mostRelated bounds how many files are looked into for the place of an error.
const mostRelated = 200

// related are the files that others include, or whose services are extended there, also those that these name in turn;
// not those of a name that is none without variables, or that is not of a local file.
func related(files []string) []string {
	all := slices.Clone(files)
	for i := 0; i < len(all) && len(all) < mostRelated; i++ {
		data, err := os.ReadFile(all[i])
		if err != nil {
			continue
		}
		var doc yaml.Node
		if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
			continue
		}
		for _, name := range namedFiles(resolved(doc.Content[0])) {
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(all[i]), name)
			}
			if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all[len(files):]
}

// namedFiles are those that a file includes or extends, as it names them.
func namedFiles(root *yaml.Node) []string {
	var names []string
	if _, include := member(root, "include", 0); include != nil {
		for _, entry := range resolved(include).Content {
			if entry = resolved(entry); entry.Kind == yaml.MappingNode {
				_, entry = member(entry, "path", 0)
			}
			names = append(names, scalars(entry)...)
		}
	}
	_, services := member(root, "services", 0)
	if services == nil {
		return names
	}
	for _, service := range resolved(services).Content {
		if _, extends := member(resolved(service), "extends", 0); extends != nil {
			_, file := member(resolved(extends), "file", 0)
			names = append(names, scalars(file)...)
		}
	}
	return names
}

// scalars are the texts of a scalar, or of a list of some.
func scalars(n *yaml.Node) []string {
	if n == nil {
		return nil
	}
	if n = resolved(n); n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var found []string
	for _, c := range n.Content {
		if c = resolved(c); c.Kind == yaml.ScalarNode {
			found = append(found, c.Value)
		}
	}
	return found
}
