"""The body of an import is bytes, which schemathesis cannot read from the document."""

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    """Skips bodies that are no text: converted to text, they could be as valid as any other."""
    is_import = context.operation.definition.raw.get("operationId") == "importKeys"
    return not (is_import and (case.body is None or isinstance(case.body, (bool, int, float, list, dict))))
