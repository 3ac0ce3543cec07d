// Package services holds, in the packages below it, what every service of Holdfast is made of. It knows no service: the
// import rules in imports_test.go hold that wall.
package services
