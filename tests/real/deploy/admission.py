"""Stands in for the API server's admission of Kubernetes objects, as far as policies of CEL go.

Standard input is JSON: the policies, the object, its namespace, and the settings ConfigMap or null. Prints the object
after the mutations, and the messages of the refusals.

CEL itself is that of Google's C++ library, with its type checker. Of Kubernetes, this file has: the selectors by name
and label of a namespace, operations and kinds; matchConditions, variables, messages; JSONPatch with "add"; the
literals Object...{} and JSONPatch{}, which become maps after a check that each type's name is the path of its field;
lists' indexOf. It has no budget of costs, no types of the objects' fields, and no apply configurations.
"""

import copy
import functools
import json
import re
import sys

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

DYN, INT, BOOL = cel.Type.DYN, cel.Type.INT, cel.Type.BOOL

# The strings' indexOf has the name already, so the lists' goes by another.
FIRST_OF = cel.FunctionDecl(
    "firstOf",
    [
        cel.Overload(
            "list_first_of",
            INT,
            [cel.Type.LIST, BOOL],
            True,
            impl=lambda values, sought: values.index(sought) if sought in values else -1,
        )
    ],
)

ENVIRONMENT = cel.NewEnv(
    variables={name: DYN for name in ["object", "params", "variables"]},
    extensions=[ext_strings.ExtStrings()],
    functions=[FIRST_OF],
)

TOKEN = re.compile(
    r"\s+|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)*|\d+|&&|[|]{2}|[=!<>]=|."
)

KINDS = {
    "pods": "Pod",
    "services": "Service",
    "configmaps": "ConfigMap",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "jobs": "Job",
}


def without_types(expression):
    """The expression with maps in place of the literals Object...{} and JSONPatch{}.

    The API server refuses a literal whose type is not named by the path of its field.
    """
    tokens = [token for token in TOKEN.findall(expression) if not token.isspace()]
    written, scopes, at = [], [], 0
    while at < len(tokens):
        token, following = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        if following == "{" and re.fullmatch(r"(Object|JSONPatch)(\.\w+)*", token):
            outer = next((scope for scope in reversed(scopes) if isinstance(scope, dict)), None)
            if outer and outer["type"] != "JSONPatch":
                expected = f"{outer['type']}.{outer['field']}"
                if token != expected:
                    raise ValueError(f"the type {token} stands where {expected} belongs")
            scopes.append({"type": token, "field": None})
            written.append("{")
            at += 2
            continue
        if token in "([{":
            scopes.append(token)
        elif token in ")]}":
            scopes.pop()
        elif scopes and isinstance(scopes[-1], dict) and following == ":" and written[-1] in "{,":
            scopes[-1]["field"] = token
            token = json.dumps(token)
        written.append(token)
        at += 1
    return " ".join(written)


@functools.cache
def compiled(expression):
    expression = without_types(expression).replace(". indexOf ( true )", ". firstOf ( true )")
    return ENVIRONMENT.compile(expression)


def evaluate(expression, given):
    value = compiled(expression).eval(data=given)
    if value.type() == cel.Type.ERROR:
        raise ValueError(f"{value.plain_value()}: {expression}")
    return value.plain_value()


def selected(selector, labels):
    for wanted in selector.get("matchExpressions", []):
        there = labels.get(wanted["key"]) in wanted["values"]
        if there != (wanted["operator"] == "In"):
            return False
    return True


def matches(policy, request):
    constraints = policy["spec"]["matchConstraints"]
    namespace = request["namespace"]
    labels = {"kubernetes.io/metadata.name": namespace["name"], **namespace.get("labels", {})}
    if not selected(constraints["namespaceSelector"], labels):
        return False
    for rule in constraints["resourceRules"]:
        kinds = [KINDS[resource] for resource in rule["resources"]]
        names = rule.get("resourceNames")
        named = not names or request["object"]["metadata"].get("name") in names
        if request["object"]["kind"] in kinds and request["operation"] in rule["operations"] and named:
            return True
    return False


def conditions_hold(policy, given):
    return all(evaluate(it["expression"], given) for it in policy["spec"].get("matchConditions", []))


def apply(patch, document):
    if patch["op"] != "add":
        raise ValueError(f"an unknown operation: {patch}")
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in patch["path"].split("/")[1:]]
    for part in path:
        document = document[int(part) if isinstance(document, list) else part]
    if isinstance(document, list):
        document.insert(len(document) if last == "-" else int(last), patch["value"])
    else:
        document[last] = patch["value"]


def bound(policy, policies):
    kind = policy["kind"] + "Binding"
    bindings = (it for it in policies if it["kind"] == kind)
    return next(it for it in bindings if it["spec"]["policyName"] == policy["metadata"]["name"])


def mutate(policy, request, policies):
    given = {"object": request["object"], "params": {}, "variables": {}}
    if "paramKind" in policy["spec"]:
        if request["settings"] is None:
            if bound(policy, policies)["spec"]["paramRef"]["parameterNotFoundAction"] == "Deny":
                raise ValueError("no params found for policy binding with `Deny` parameterNotFoundAction")
            return
        given["params"] = request["settings"]
    if not conditions_hold(policy, given):
        return
    for mutation in policy["spec"]["mutations"]:
        patched = copy.deepcopy(request["object"])
        for patch in evaluate(mutation["jsonPatch"]["expression"], given):
            apply(patch, patched)
        request["object"] = given["object"] = patched


def refusals(policy, request):
    given = {"object": request["object"], "params": {}, "variables": {}}
    if not conditions_hold(policy, given):
        return
    for variable in policy["spec"].get("variables", []):
        given["variables"][variable["name"]] = evaluate(variable["expression"], given)
    for validation in policy["spec"]["validations"]:
        if not evaluate(validation["expression"], given):
            message = validation["message"]
            if "messageExpression" in validation:
                message = evaluate(validation["messageExpression"], given)
            yield f"{policy['metadata']['name']}: {message}"


def compile_all(policy):
    """Has each expression of the policy checked, even if no object of a test reaches it."""
    spec = policy["spec"]
    expressions = []
    for key in ["matchConditions", "variables", "validations"]:
        expressions += [it["expression"] for it in spec.get(key, [])]
    expressions += [it["messageExpression"] for it in spec.get("validations", []) if "messageExpression" in it]
    expressions += [it["jsonPatch"]["expression"] for it in spec.get("mutations", [])]
    for expression in expressions:
        compiled(expression)


def admit(request, policies):
    errors, refused = [], []
    for policy in policies:
        if policy["kind"] == "MutatingAdmissionPolicy" and matches(policy, request):
            try:
                mutate(policy, request, policies)
            except Exception as error:  # as the API server has it: the failurePolicy decides
                errors.append(str(error))
                if policy["spec"]["failurePolicy"] == "Fail":
                    refused.append(str(error))
    for policy in policies:
        if policy["kind"] == "ValidatingAdmissionPolicy" and matches(policy, request):
            refused.extend(refusals(policy, request))
    return {"object": request["object"], "refused": refused, "errors": errors}


asked = json.load(sys.stdin)
for policy in asked["policies"]:
    compile_all(policy)
json.dump([admit(request, asked["policies"]) for request in asked["requests"]], sys.stdout)
