"""The JSON Schema that weir prints, against an independent validator and against weir itself.

schema.py WEIR CONFIG-FOLDER: the shipped files are valid; what is made wrong, key by key, is neither for the schema nor
for weir.
"""

import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

weir, folder = sys.argv[1], Path(sys.argv[2])
# YAML 1.2: `off` is a word.
read = YAML(typ="safe", pure=True).load


def run(*arguments):
    environment = {"PATH": "/usr/bin:/bin"}
    return subprocess.run([weir, "config", *arguments], capture_output=True, text=True, env=environment)


schema = json.loads(run("schema").stdout)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)

for path in ["proxy.yaml", "proxy.dev.yaml", "proxy.prod.yaml", "filters.yaml", "recipes/packages.yaml"]:
    errors = [f"{path}: {error.json_path}: {error.message}" for error in validator.iter_errors(read(folder / path))]
    assert not errors, errors
print("shipped files are valid")

reference = read(folder / "proxy.yaml")


def leaves(node, path=()):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def changed(document, path, change):
    """A copy in which one key's section was changed."""
    document = copy.deepcopy(document)
    section = document
    for key in path[:-1]:
        section = section[key]
    change(section, path[-1])
    return document


def properties(path):
    node = schema
    for key in path:
        node = node["properties"][key]
    return node


def rename(section, key):
    section[key + "_x"] = section.pop(key)


def put(value):
    def change(section, key):
        section[key] = value

    return change


def wrong(path, value):
    """A value of the right form that is wrong all the same; None where the schema can't know."""
    node = json.dumps(properties(path))
    if isinstance(value, list):
        return "text"
    if '"boolean"}' in node or node.startswith('{"default": true') or isinstance(value, bool):
        return "perhaps"
    if "minimum" in node:
        return -1
    if "[mM][sS]" in node:
        return "soon"
    if '"enum"' in node:
        return "nonsense"
    return None


def refused_by_weir(document):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "wrong.yaml"
        with path.open("w") as file:
            json.dump(document, file, indent=1)
        checked = run("check", "--json", "--config", str(path))
    assert checked.returncode == 2, checked
    told = json.loads(checked.stdout)
    assert all(error["file"] == str(path) and error["line"] for error in told["errors"]), told
    return {error["key"] for error in told["errors"]}


every = list(leaves(reference))
mutations = 0
for name, change_of in [
    ("renamed", lambda path, value: rename),
    ("a section", lambda path, value: put({"a": 1})),
    ("a list of lists", lambda path, value: put([[1]])),
    ("out of range", lambda path, value: put(wrong(path, value)) if wrong(path, value) is not None else None),
]:
    wrongs = [(path, change_of(path, value)) for path, value in every]
    wrongs = [(path, change) for path, change in wrongs if change]
    assert len(wrongs) > 100, (name, len(wrongs))
    everything = reference
    for path, change in wrongs:
        one = changed(reference, path, change)
        assert not validator.is_valid(one), (name, path)
        everything = changed(everything, path, change)
        mutations += 1
    refused = refused_by_weir(everything)
    expected = {".".join(path) + ("_x" if change is rename else "") for path, change in wrongs}
    assert expected <= refused, (name, expected - refused)

# Entries of lists.
for yaml in [
    "capture: {rules: [{name: a}]}",
    "capture: {rules: [{action: denied}]}",
    "capture: {targets: {a: 1}}",
    "routing: {rules: [{match: {path: /}}]}",
    "routing: {rules: [{match: {path: /}, forward: {target: 'http://a', host: b}}]}",
    "security: {auth: {users: [{name: a}]}}",
    "cli: {allowed_commands: [{path: relative}]}",
    "security: {header_rules: [{remove: [a]}]}",
    "nonsense: {}",
    "server: 1",
    "[]",
]:
    assert not validator.is_valid(read(yaml)), yaml
for yaml in [
    "server:",
    "{}",
    "capture: {rules: [{action: deny, ports: [1-2, 53]}]}",
    "routing: {rules: [{match: {path: /}, forward: {target: 'http://a'}}]}",
    "server: {port: 0, limits: {body: 0, url: 4 KiB, connections_per_client: 7}, tls: {min_version: 1.3}}",
]:
    assert validator.is_valid(read(yaml)), list(validator.iter_errors(read(yaml)))
print(f"{mutations} mutations refused")
