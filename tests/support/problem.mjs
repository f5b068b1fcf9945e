// Checks of problem responses.
import assert from "node:assert/strict";

export const PROBLEM_TYPE = "application/problem+json";

/**
 * Checks a refusal by its status, a function from header names to values, and its body as text;
 * returns the problem.
 */
export function checkProblem({ status, header, body }, expected) {
  assert.equal(status, expected, body);
  assert.equal(header("content-type"), PROBLEM_TYPE);
  assert.equal(header("cache-control"), "no-store");
  assert.equal(header("x-content-type-options"), "nosniff");
  const problem = JSON.parse(body);
  assert.equal(problem.status, expected);
  for (const member of ["type", "title", "detail"]) assert.equal(typeof problem[member], "string", `${member}: ${body}`);
  return problem;
}

/** Checks a 429 of these policies; returns its `Retry-After`. */
export function checkDenial(answer, policies) {
  const problem = checkProblem(answer, 429);
  assert.match(answer.header("retry-after") ?? "none", /^[1-9]\d*$/);
  assert.deepEqual(problem["violated-policies"], policies);
  assert.equal(problem.retry_after, Number(answer.header("retry-after")));
  return problem.retry_after;
}
