// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"crypto/rsa"
	"fmt"
	"math/big"
)

// leastExponent is the least public exponent of an RSA key (FIPS 186-5 section 5.4).
const leastExponent = 1<<16 + 1

// checkExponent refuses public exponents that are weak, or more than crypto/rsa takes. It may be named: it is public.
func checkExponent(e *big.Int) error {
	const use65537 = "use a key with exponent 65537, which all tools make by themselves"
	switch {
	case e.Sign() <= 0 || e.Bit(0) == 0 || e.Cmp(big.NewInt(leastExponent)) < 0:
		return refuse(fmt.Sprintf("the RSA key's public exponent is %s, which is too small or even", shortNumber(e)), use65537)
	case e.BitLen() > 31:
		return refuse(fmt.Sprintf("the RSA key's public exponent is %s, which has more than 31 bits", shortNumber(e)), use65537)
	}
	return nil
}

// shortNumber returns a public number, or how long it is.
func shortNumber(n *big.Int) string {
	if n.BitLen() > 64 {
		return fmt.Sprintf("a number of %d bits", n.BitLen())
	}
	return n.String()
}

// checkWeak refuses RSA keys that others can find out.
func checkWeak(key *rsa.PrivateKey) error {
	if hasROCAFingerprint(key.N) {
		return refuse("the RSA key was made by hardware with a flaw (ROCA, CVE-2017-15361): others can find it out", makeAnother)
	}
	// FIPS 186-5 section A.1.3: else Fermat's method finds the primes.
	apart := new(big.Int).Sub(key.Primes[0], key.Primes[1])
	if apart.BitLen() <= key.N.BitLen()/2-100 {
		return refuse("the primes of the RSA key are so close to each other that others can find them", makeAnother)
	}
	return nil
}

const makeAnother = "make another one, best in Vault: vault write -f redox/keys/NAME"

// rocaPrimes are small primes for which the moduli of CVE-2017-15361 are powers of 65537 (Nemec et al., "The Return of
// Coppersmith's Attack", 2017, section 2.1): of other moduli fewer than one in 2^27 is so for all of them.
var rocaPrimes = []int64{
	3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137,
	139, 149, 151, 157, 163, 167,
}

// hasROCAFingerprint reports whether a modulus looks like one of CVE-2017-15361.
func hasROCAFingerprint(n *big.Int) bool {
	for _, prime := range rocaPrimes {
		rest := new(big.Int).Mod(n, big.NewInt(prime)).Int64()
		power, found := int64(1), false
		for range prime {
			if power == rest {
				found = true
				break
			}
			power = power * (leastExponent % prime) % prime
		}
		if !found {
			return false
		}
	}
	return true
}
