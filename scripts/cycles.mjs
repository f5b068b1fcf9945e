// Finds circles of imports among the files of src/: `node scripts/cycles.mjs`. Prints each circle
// and exits with 1 if there is any. A declaration (`mod name;`) imports nothing. Code under
// `#[cfg(test)]` does not count.
import { globSync, readFileSync } from "node:fs";

/** The module path of a file: `["runtime", "http"]` of src/runtime/http.rs. */
const modulePath = (file) =>
  file.replace(/\.rs$/, "").split("/").slice(1).filter((name) => !["mod", "lib", "main"].includes(name));

/** The code without comments, literals and test modules. */
function code(file) {
  const text = readFileSync(file, "utf8")
    .replace(/\/\/[^\n]*|\/\*.*?\*\/|\br(#*)"[^]*?"\1|"(?:\\[^]|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'/gs, " ");
  const attribute = /#\[cfg\(test\)\]/g;
  let rest = "";
  let from = 0;
  for (let match; (match = attribute.exec(text)); attribute.lastIndex = from) {
    rest += text.slice(from, match.index);
    // The item under it ends at its `;`, or at the brace that closes it.
    let depth = 0;
    for (from = attribute.lastIndex; from < text.length; from++) {
      if (text[from] === "{") depth += 1;
      if (text[from] === "}") depth -= 1;
      if (depth === 0 && (text[from] === ";" || text[from] === "}")) break;
    }
    from += 1;
  }
  return rest + text.slice(from);
}

/** The paths of a tree such as `crate::{a::B, c::{self, D}}`. */
function paths(tree) {
  const group = tree.match(/^([^{]*)\{([^]*)\}$/);
  if (group === null) return [tree.split(/\sas\s/)[0]];
  let depth = 0;
  const items = [...group[2]].map((char) => {
    depth += (char === "{") - (char === "}");
    return char === "," && depth === 0 ? "\n" : char.trim() === "" ? " " : char;
  });
  return items.join("").split("\n").flatMap((item) => paths(group[1] + item.trim()));
}

const files = globSync("src/**/*.rs");
const byModule = new Map(files.map((file) => [modulePath(file).join("::"), file]));
const rootOf = (file) => (file.startsWith("src/bin/") ? modulePath(file).slice(0, 2) : []);

/** The file of a path: that of its longest prefix that is a module. */
function target(path, file) {
  let [first, ...names] = path.split("::").map((name) => name.trim());
  let at = { crate: rootOf(file), tollgate: [], self: modulePath(file), super: modulePath(file).slice(0, -1) }[first];
  if (at === undefined) return undefined;
  for (; names[0] === "super"; names = names.slice(1)) at = at.slice(0, -1);
  for (at = [...at, ...names]; at.length > 0 && !byModule.has(at.join("::")); ) at.pop();
  return byModule.get(at.join("::"));
}

const imports = new Map(files.map((file) => {
  const text = code(file);
  const uses = [...text.matchAll(/\buse\s+([^;]+);/g)].flatMap(([, tree]) => paths(tree.trim()));
  const inline = text.match(/\b(?:crate|super|self|tollgate)(?:\s*::\s*\w+)+/g) ?? [];
  return [file, new Set([...uses, ...inline].map((path) => target(path, file)).filter((to) => to && to !== file))];
}));

/** All files that can be reached from one. */
function reached(file) {
  const found = new Set();
  for (const next = [...imports.get(file)]; next.length > 0; ) {
    const to = next.pop();
    if (found.has(to)) continue;
    found.add(to);
    next.push(...imports.get(to));
  }
  return found;
}

const reach = new Map(files.map((file) => [file, reached(file)]));
const circles = new Set(files.filter((file) => reach.get(file).has(file)).map((file) =>
  [...reach.get(file)].filter((other) => reach.get(other).has(file)).sort().join(", ")));
for (const circle of circles) console.error(`circle of imports: ${circle}`);
process.exit(circles.size > 0 ? 1 : 0);
