// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import "math/big"

// recoverPrimes returns the primes of an RSA modulus from the exponents (NIST SP 800-56B revision 2, appendix C.1), nil when
// they do not belong together. The lengths of the numbers must have been checked.
func recoverPrimes(n, e, d *big.Int) []*big.Int {
	one, two := big.NewInt(1), big.NewInt(2)
	k := new(big.Int).Mul(d, e)
	k.Sub(k, one)
	if k.Sign() <= 0 || k.Bit(0) != 0 {
		return nil
	}
	t := k.TrailingZeroBits()
	r := new(big.Int).Rsh(k, t)
	nLessOne := new(big.Int).Sub(n, one)
	const tries = 100 // each fails in at most one of two cases
	for g := int64(2); g < 2+tries; g++ {
		y := new(big.Int).Exp(big.NewInt(g), r, n)
		if y.Cmp(one) == 0 || y.Cmp(nLessOne) == 0 {
			continue
		}
		for range t {
			x := new(big.Int).Exp(y, two, n)
			if x.Cmp(one) == 0 {
				p := new(big.Int).GCD(nil, nil, y.Sub(y, one), n)
				q, rest := new(big.Int).QuoRem(n, p, new(big.Int))
				if rest.Sign() != 0 || p.Cmp(one) == 0 || q.Cmp(one) == 0 {
					return nil
				}
				if p.Cmp(q) < 0 {
					p, q = q, p
				}
				return []*big.Int{p, q}
			}
			if x.Cmp(nLessOne) == 0 {
				break
			}
			y = x
		}
	}
	return nil
}
