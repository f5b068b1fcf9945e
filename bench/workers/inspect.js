// Returns how many rows some objects have written in total: `POST /` with their names as a JSON
// array.
export default {
  async fetch(request, env) {
    const ask = async (name) => {
      const answer = await env.KEYS.getByName(name).fetch(`https://key.object/v1/stats?id=${name}`);
      if (!answer.ok) throw new Error(`stats of ${name}: ${answer.status}`);
      return answer.json();
    };
    const all = await Promise.all((await request.json()).map(ask));
    const sum = (field) => all.reduce((total, one) => total + (one[field] ?? 0), 0);
    return Response.json({ rows_written: sum("rows_written"), asked: Math.max(0, ...all.map(({ asked }) => asked ?? 0)) });
  },
};
