"""A client of the admin API that knows nothing but its OpenAPI document.

api_client.py URL TOKEN: calls every operation, with the least that its schema asks for, and checks status, media type and
answer by the document. Prints `METHOD PATH STATUS` for each.
"""

import json
import sys
import urllib.error
import urllib.request

from jsonschema import Draft202012Validator

base, token = sys.argv[1:]
document = json.loads(urllib.request.urlopen(f"{base}/openapi.json").read())
assert document["openapi"].startswith("3.1"), document["openapi"]

# What a schema alone can't know.
known = {"/explain": "?destination=127.0.0.1:80", "/admin/cache/entries": "?pattern=*", "/admin/cache": "?tag=a"}
examples = {"target": "unit:a.service", "id": "no-such", "command": "true", "pid": 1}
seen = set()


def example(name, schema):
    if name in examples:
        return examples[name]
    kind = schema.get("type", "object")
    return {"integer": 1, "number": 1, "boolean": True, "string": "text", "array": [], "object": {}}[kind]


def check(method, path, operation):
    body = None
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema:
        body = {name: example(name, schema["properties"][name]) for name in schema.get("required", [])}
        Draft202012Validator(schema).validate(body)
    url = base + path.replace("{id}", "no-such") + known.get(path, "")
    request = urllib.request.Request(url, method=method.upper())
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if operation.get("security"):
        # Nobody is let in without the secret.
        try:
            urllib.request.urlopen(request)
            raise AssertionError(f"{method} {path} without the token")
        except urllib.error.HTTPError as error:
            assert error.code in (401, 403), error.code
        request.add_header("Authorization", f"Bearer {token}")
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    responses = operation["responses"]
    response = responses.get(str(answer.status)) or responses.get(f"{answer.status // 100}XX")
    assert response, f"{method} {path}: {answer.status} is not documented"
    media_type = answer.headers.get_content_type()
    assert media_type in response["content"], (method, path, answer.status, media_type)
    if media_type.endswith("json"):
        told = json.loads(answer.read())
        schema = {**response["content"][media_type]["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(told)
        if media_type == "application/problem+json":
            assert told["status"] == answer.status and told["detail"], told
    print(method.upper(), path, answer.status)
    seen.add(answer.status)


for path, operations in document["paths"].items():
    for method, operation in operations.items():
        check(method, path, operation)
assert {200, 403, 404, 503} <= seen, seen
