// Counts the instructions of the core's work by valgrind and prints them; `make bench` does it too.
// See benches/instructions.rs.
import { instructions } from "../bench/lib/instructions.mjs";
import { instructionsText } from "../bench/lib/tables.mjs";

console.log(instructionsText(await instructions()));
