// Package bake reads bake files: HCL, JSON and compose files, with variables, functions,
// groups, inheritance, matrices and what overrides them. What comes out is plain: targets
// to build. Expressions are evaluated by buildx's own parser, so that they mean the same.
package bake
