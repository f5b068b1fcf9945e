// Answers a constant: the origin behind every contender, and the upper bound of what a Worker can
// do.
export default {
  fetch() {
    return new Response("ok\n");
  },
};
