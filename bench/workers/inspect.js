// Asks a key's object of tollgate how many rows it has written: `GET /<key id>`.
export default {
  fetch(request, env) {
    const id = new URL(request.url).pathname.slice(1);
    return env.KEYS.getByName(id).fetch(`https://key.object/v1/stats?id=${id}`);
  },
};
