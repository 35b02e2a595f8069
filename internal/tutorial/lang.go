package tutorial

import (
	"fmt"
	"strings"
)

// Lang is a language that lessons are written in.
type Lang string

// The languages.
const (
	English  Lang = "en"
	Japanese Lang = "ja"
)

// Langs are all languages there are.
func Langs() []Lang { return []Lang{English, Japanese} }

// ParseLang reads the name of a language as a person gives it.
func ParseLang(text string) (Lang, error) {
	switch l := Lang(text); l {
	case English, Japanese:
		return l, nil
	}
	return "", fmt.Errorf("give en or ja: there is no tutorial in %q", text)
}

// LocaleLang is the language of a locale such as ja_JP.UTF-8: English but for Japanese ones.
func LocaleLang(locale string) Lang {
	if lang, _, _ := strings.Cut(locale, "_"); strings.EqualFold(lang, "ja") || strings.HasPrefix(strings.ToLower(lang), "ja.") {
		return Japanese
	}
	return English
}

// Say formats the text of the language. The Japanese one may take arguments in another order (%[2]s).
func (l Lang) Say(en, ja string, args ...any) string {
	if l == Japanese {
		en = ja
	}
	if len(args) == 0 {
		return en
	}
	return fmt.Sprintf(en, args...)
}
