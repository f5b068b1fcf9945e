// One SQL row written for each admitted request.
import gate, { Window } from "./gate.js";
export default gate;
export class Counter extends Window {
  store() {
    this.write();
  }
}
