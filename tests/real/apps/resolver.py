"""Checks a resolver's token with Velt's own Python SDK, as a team's resolver endpoint does.

    resolver.py TOKEN JWKS_URL ISSUER AUDIENCE

Prints one JSON object: whether the token counts, the code of the error, and the user.
"""

import json
import sys

from velt_py import VeltSDK

token, keys, issuer, audience = sys.argv[1:]
# The SDK asks for a database when it is set up, and connects to none for a token.
sdk = VeltSDK.initialize(
    {"database": {"connection_string": "mongodb://127.0.0.1:1/velt"}, "apiKey": "key", "authToken": "token"}
)
result = sdk.selfHosting.verifyToken(
    headers={"Authorization": f"Bearer {token}"},
    jwt={
        "algorithms": ["ES256"],
        "jwks_url": keys,
        "issuer": issuer,
        "audience": audience,
        "require": ["exp", "sub"],
    },
)
if not isinstance(result, dict):
    result = vars(result)
claims = result.get("claims") or {}
print(json.dumps({"verified": result["verified"], "code": result.get("errorCode"), "user": claims.get("sub")}))
