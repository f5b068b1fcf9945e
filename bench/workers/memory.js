// Counts in memory only: what it admitted is forgotten with the object.
import gate, { Window } from "./gate.js";
export default gate;
export class Counter extends Window {
  store() {}
}
