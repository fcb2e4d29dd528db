package assemble

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/spf13/pflag"
)

// objectExamples are the flags whose key has an object, and what one looks like.
var objectExamples = map[string]string{
	"default-network-opt": `{"bridge": {"com.docker.network.driver.mtu": "1400"}}`,
	"default-ulimit":      `{"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 4096}}`,
	"feature":             `{"buildkit": true}`,
	"log-opt":             `{"max-size": "10m"}`,
}

// poolsFlag is the one whose key has a list of objects.
const poolsFlag = "default-address-pool"

const poolsExample = `[{"base": "10.10.0.0/16", "size": 24}]`

// listFlags are those needless ones whose key has a list; of the others the flag tells.
var listFlags = []string{"exec-opt", "storage-opt"}

// checkShape refuses a key's value that is of another kind than the key's. What is not supported is refused by its name,
// whatever it says; an empty text is as if the key were not there, and a list of one may be written without brackets.
func checkShape(flag *pflag.Flag, v fileValue) error {
	if _, refused := refusedFlags[flag.Name]; refused || v.kind == kindText && len(v.values) == 0 {
		return nil
	}
	wants := func(what string) error {
		return fmt.Errorf("%q: it wants %s, not %s", v.key, what, v.kind)
	}
	example, object := objectExamples[flag.Name]
	_, asGiven := flag.Value.(*givenValues)
	switch typ := flag.Value.Type(); {
	case object:
		if v.kind != kindObject {
			return wants("an object, such as " + example)
		}
	case flag.Name == poolsFlag:
		if v.kind != kindList {
			return wants("a list of objects, such as " + poolsExample)
		}
	case typ == "stringArray" || slices.Contains(listFlags, flag.Name):
		if v.kind == kindObject {
			return wants(`a list of texts, such as ["one", "two"]`)
		}
	case typ == "bool" || asGiven && flag.NoOptDefVal == "true":
		if v.kind == kindObject || v.kind == kindList {
			return wants(kindBool)
		}
	case typ == "int":
		if v.kind != kindNumber && v.kind != kindText {
			return wants(kindNumber)
		}
	case v.kind == kindObject || v.kind == kindList || v.kind == kindBool && !asGiven:
		return wants(kindText)
	}
	return nil
}

// misfitOf says in the file's terms what a value within a key's object is, and what it should be.
func misfitOf(key string, e *json.UnmarshalTypeError) error {
	wants, is := "a whole number", e.Value
	typ := e.Type
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch typ.Kind() {
	case reflect.Struct:
		wants = kindObject
	case reflect.Slice:
		wants = kindList
	case reflect.Bool:
		wants = kindBool
	case reflect.String:
		wants = kindText
	}
	if kind, known := map[string]string{"object": kindObject, "array": kindList, "bool": kindBool, "number": kindNumber, "string": kindText}[is]; known {
		is = kind
	}
	if e.Field != "" {
		key += "." + e.Field
	}
	return fmt.Errorf("%q: it wants %s, not %s", key, wants, is)
}

// Kinds of values, for errors.
const (
	kindObject = "an object"
	kindList   = "a list"
	kindBool   = "true or false"
	kindNumber = "a number"
	kindText   = "a text"
)

// kindOf is the kind of a decoded value.
func kindOf(v any) string {
	switch v.(type) {
	case map[string]any:
		return kindObject
	case []any:
		return kindList
	case bool:
		return kindBool
	case json.Number:
		return kindNumber
	case nil:
		return "null"
	}
	return kindText
}
