package when

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// bounds finds in a condition what would let the agent choose how long it takes
// or how much memory. The library bounds neither: it counts the elements of
// lists, but not the bytes of texts, nor steps.
type bounds struct {
	source string
	loop   bool // inside of a loop
	body   bool // a field of the body is used
	first  *Error
}

func (b *bounds) err() error {
	if b.first == nil { // an interface with a nil in it is no nil
		return nil
	}
	return b.first
}

func (b *bounds) refuse(n ast.Node, why string) {
	b.first = cmp.Or(b.first, &Error{Column: column(b.source, n.Location().From), Why: why})
}

// column counts characters: the library's places are in runes already.
func column(source string, at int) int { return max(0, min(at, len([]rune(source)))) }

func (b *bounds) visit(n ast.Node) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		b.name(n)
	case *ast.BinaryNode:
		b.binary(n)
	case *ast.CallNode:
		if b.loop {
			b.refuse(n, "a function is called in a loop, and the agent chooses how often")
		}
	case *ast.PredicateNode:
		b.predicate(n)
		return
	}
	parts, known := children(n)
	if !known {
		b.refuse(n, "it has a form that is not supported")
	}
	for _, part := range parts {
		b.visit(part)
	}
}

func (b *bounds) name(n *ast.IdentifierNode) {
	if strings.HasPrefix(n.Value, "body_") {
		b.body = true
		if b.loop && n.Value == "body_text" {
			b.refuse(n, "the body is searched in a loop, and the agent chooses how often")
		}
	}
}

func (b *bounds) binary(n *ast.BinaryNode) {
	switch n.Operator {
	case "matches":
		if _, fixed := n.Right.(*ast.StringNode); !fixed {
			b.refuse(n.Right, "the pattern is not written out")
		}
	case "..":
		b.refuse(n, "ranges are not supported")
	case "+":
		if t := n.Type(); t == nil || t.Kind() == reflect.String || t.Kind() == reflect.Interface {
			b.refuse(n, "texts cannot be joined")
		}
	}
}

func (b *bounds) predicate(n *ast.PredicateNode) {
	if b.loop {
		b.refuse(n, "there is a loop in a loop, and the agent chooses how often it runs")
		return
	}
	b.loop = true
	b.visit(n.Node)
	b.loop = false
}

// children lists what a node is made of, and whether its kind is known.
func children(n ast.Node) ([]ast.Node, bool) {
	switch n := n.(type) {
	case *ast.NilNode, *ast.IdentifierNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.ConstantNode, *ast.PointerNode:
		return nil, true
	case *ast.UnaryNode:
		return []ast.Node{n.Node}, true
	case *ast.BinaryNode:
		return []ast.Node{n.Left, n.Right}, true
	case *ast.ChainNode:
		return []ast.Node{n.Node}, true
	case *ast.MemberNode:
		return []ast.Node{n.Node, n.Property}, true
	case *ast.SliceNode:
		return slices.DeleteFunc([]ast.Node{n.Node, n.From, n.To}, func(n ast.Node) bool { return n == nil }), true
	case *ast.CallNode:
		return append([]ast.Node{n.Callee}, n.Arguments...), true
	case *ast.BuiltinNode:
		return n.Arguments, true
	case *ast.PredicateNode:
		return []ast.Node{n.Node}, true
	case *ast.ConditionalNode:
		return []ast.Node{n.Cond, n.Exp1, n.Exp2}, true
	case *ast.ArrayNode:
		return n.Nodes, true
	case *ast.MapNode:
		return n.Pairs, true
	case *ast.PairNode:
		return []ast.Node{n.Key, n.Value}, true
	default:
		return nil, false
	}
}
