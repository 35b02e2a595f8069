// Package tutorial holds lessons about Services as data: what they say, which commands they have the learner type, and
// what must be true after each step, in English and Japanese.
//
// A lesson is a text file for each language (see lessons/README), and every command and check is the same in both. A
// check knows what to ask and judges the answer, in words that say what is different. Package guide walks a person
// through a lesson. This package runs nothing and asks nobody.
package tutorial
