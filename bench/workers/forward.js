// Forwards and does nothing else.
export default {
  fetch(request) {
    return fetch(request);
  },
};
