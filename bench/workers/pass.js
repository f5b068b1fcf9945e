// Forwards, and hands each chunk of the response's body on in JavaScript: what the platform charges
// for a body that is looked at.
export default {
  async fetch(request) {
    const response = await fetch(request);
    const reader = response.body.getReader();
    const pull = async (controller) => {
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    };
    return new Response(new ReadableStream({ pull, cancel: () => reader.cancel() }, { highWaterMark: 0 }), response);
  },
};
