// Header fields cross from wasm as one text: name, line feed, value, line feed, and so on. Values
// have no line feeds.

export function setAll(headers, fields) {
  if (fields === "") return;
  const parts = fields.split("\n");
  for (let i = 0; i + 1 < parts.length; i += 2) headers.set(parts[i], parts[i + 1]);
}

/** The names in `fields`. */
export function namesOf(fields) {
  return fields.split("\n").filter((name, i) => i % 2 === 0 && name !== "");
}

export function headersOf(fields) {
  const headers = new Headers();
  setAll(headers, fields);
  return headers;
}
