package restic

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
)

// A polynomial over GF(2): bit i is the coefficient of x^i. Each repository has one
// irreducible polynomial, chosen at random, by which files are cut.
type polynomial uint64

const polynomialDegree = 53

// randomPolynomial returns an irreducible polynomial. About one in 27 is.
func randomPolynomial() polynomial {
	for {
		var b [8]byte
		rand.Read(b[:])
		p := polynomial(binary.LittleEndian.Uint64(b[:]))
		p = p&(1<<polynomialDegree-1) | 1<<polynomialDegree | 1
		if p.irreducible() {
			return p
		}
	}
}

// irreducible is Rabin's test for the degree 53, a prime: p is irreducible
// if it has no root and divides x^(2^53) - x.
func (p polynomial) irreducible() bool {
	if p.degree() != polynomialDegree || p&1 == 0 || bits.OnesCount64(uint64(p))%2 == 0 {
		return false // of another degree, or 0 or 1 is a root
	}
	const x = 2
	power := polynomial(x)
	for range polynomialDegree {
		power = p.square(power)
	}
	return power == x
}

func (p polynomial) degree() int { return bits.Len64(uint64(p)) - 1 }

// square returns a² modulo p.
func (p polynomial) square(a polynomial) polynomial {
	var product polynomial
	for b, shifted := a, a; b != 0; b >>= 1 {
		if b&1 != 0 {
			product ^= shifted
		}
		shifted = p.shift(shifted, 1)
	}
	return product
}

// shift returns a·x^n modulo p, for an a that is already reduced.
func (p polynomial) shift(a polynomial, n int) polynomial {
	for range n {
		if a <<= 1; a.degree() == polynomialDegree {
			a ^= p
		}
	}
	return a
}

func (p polynomial) MarshalText() ([]byte, error) {
	return strconv.AppendUint(nil, uint64(p), 16), nil
}

func (p *polynomial) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("polynomial %.40q: not a hexadecimal number", text)
	}
	*p = polynomial(n)
	if !p.irreducible() {
		return fmt.Errorf("polynomial %x is not irreducible of degree %d", n, polynomialDegree)
	}
	return nil
}
