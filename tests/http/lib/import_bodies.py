"""What schemathesis does not know by itself: the body of an import is bytes."""

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    """What is no text would become one on its way, and then be as good as another."""
    is_import = context.operation.definition.raw.get("operationId") == "importKeys"
    return not (is_import and (case.body is None or isinstance(case.body, (bool, int, float, list, dict))))
