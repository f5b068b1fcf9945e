// tollgate with its crossings between JavaScript and wasm counted; `GET /crossings` returns them.
// For counts, not for times.
import { counts } from "./crossings-count.js";
import tollgate, { KeyObject } from "./index.js";

export default {
  fetch(request, env, context) {
    if (new URL(request.url).pathname === "/crossings") return Response.json(counts);
    return tollgate.fetch(request, env, context);
  },
};

export { KeyObject };
