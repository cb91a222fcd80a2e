"""RS256 tokens for peers that verify signatures. A key of the moment: it protects nothing."""

import base64
import hashlib
import json
import random
import time

SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 §9.2, note 1
EXPONENT = 65537


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def is_prime(n: int, rounds: int = 24) -> bool:
    """Miller-Rabin."""
    if any(n % small == 0 for small in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)):
        return False
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(rounds):
        x = pow(random.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def prime(bits: int) -> int:
    while True:
        candidate = random.getrandbits(bits) | (3 << (bits - 2)) | 1
        if candidate % EXPONENT != 1 and is_prime(candidate):
            return candidate


class Issuer:
    """Signs tokens of `https://issuer.test` for the audience `mcp`."""

    def __init__(self):
        p, q = prime(1024), prime(1024)
        self.n = p * q
        self.d = pow(EXPONENT, -1, (p - 1) * (q - 1))

    def jwks(self) -> str:
        e = base64url(EXPONENT.to_bytes(3, "big"))
        n = base64url(self.n.to_bytes(256, "big"))
        return json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k", "n": n, "e": e}]})

    def token(self, subject: str) -> str:
        header = {"alg": "RS256", "kid": "k", "typ": "JWT"}
        claims = {"iss": "https://issuer.test", "aud": "mcp", "sub": subject, "exp": int(time.time()) + 86400}
        text = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        digest = SHA256_PREFIX + hashlib.sha256(text.encode()).digest()
        padded = b"\x00\x01" + b"\xff" * (256 - len(digest) - 3) + b"\x00" + digest
        signature = pow(int.from_bytes(padded, "big"), self.d, self.n).to_bytes(256, "big")
        return f"{text}.{base64url(signature)}"
