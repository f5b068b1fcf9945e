// Group commit: requests that arrive together share one write, issued from a zero-delay timer.
import gate, { Window } from "./gate.js";
export default gate;
export class Counter extends Window {
  store() {
    this.shared ??= new Promise((resolve, reject) => {
      setTimeout(() => {
        this.shared = undefined;
        try {
          this.write();
          resolve();
        } catch (error) {
          reject(error);
        }
      }, 0);
    });
    return this.shared;
  }
}
