// Counts in memory only: counts are lost with the object.
import gate, { Window } from "./gate.js";
export default gate;
export class Counter extends Window {
  store() {}
}
