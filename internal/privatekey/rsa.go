// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"crypto/rsa"
	"fmt"
	"math/big"
)

const (
	minRSABits = 2048
	// maxRSABits bounds what one signature can cost.
	maxRSABits = 8192
	// primalityRounds is how many Miller-Rabin rounds a prime of an imported key must pass.
	primalityRounds = 20

	notTwoPrimes    = "the RSA key is not made of exactly two primes"
	useTwoPrimes    = "use a key with two primes"
	inconsistentRSA = "the numbers of the RSA key do not belong together"
)

// checkRSA refuses RSA keys that are too weak, or not what they claim to be. EC keys pass: their parsers have matched
// the private scalar with the curve and the public point.
func (k *Key) checkRSA() error {
	key, ok := k.signer.(*rsa.PrivateKey)
	if !ok {
		return nil
	}
	if len(key.Primes) != 2 {
		return refuse(notTwoPrimes, useTwoPrimes)
	}
	if err := checkRSALengths(key.N, key.Primes[0], key.Primes[1]); err != nil {
		return err
	}
	for _, prime := range key.Primes {
		if !prime.ProbablyPrime(primalityRounds) {
			return refuse(inconsistentRSA, exportAgain)
		}
	}
	if err := checkExponent(big.NewInt(int64(key.E))); err != nil {
		return err
	}
	if err := checkWeak(key); err != nil {
		return err
	}
	if key.Validate() != nil {
		return refuse(inconsistentRSA, exportAgain)
	}
	return nil
}

// rsaWithoutPrimes makes a key of its modulus and exponents, whose primes it finds.
func rsaWithoutPrimes(n, e, d *big.Int) (*Key, error) {
	if err := checkModulus(n); err != nil {
		return nil, err
	}
	if d.Sign() <= 0 || d.BitLen() > n.BitLen() {
		return nil, refuse(inconsistentRSA, exportAgain)
	}
	primes := recoverPrimes(n, e, d)
	if primes == nil {
		return nil, refuse(inconsistentRSA, exportAgain)
	}
	return newKey(&rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())}, D: d, Primes: primes})
}

// checkModulus refuses a modulus that is too short or too long.
func checkModulus(n *big.Int) error {
	if bits := n.BitLen(); n.Sign() <= 0 || bits < minRSABits || bits > maxRSABits {
		return refuse(fmt.Sprintf("the RSA key has %d bits", bits),
			fmt.Sprintf("use a key of %d to %d bits", minRSABits, maxRSABits))
	}
	return nil
}

// checkRSALengths refuses an RSA key whose modulus n or primes p and q are not as long as they must be. It comes before
// anything is computed with the numbers: as long as the input may be, that would take minutes. It also refuses a key
// with a short prime, which can be found.
func checkRSALengths(n, p, q *big.Int) error {
	if err := checkModulus(n); err != nil {
		return err
	}
	bits := n.BitLen()
	for _, prime := range []*big.Int{p, q} {
		if prime.BitLen() < bits/2 || prime.BitLen() > bits/2+1 {
			return refuse("the primes of the RSA key are not each half as long as its modulus", exportAgain)
		}
	}
	return nil
}
