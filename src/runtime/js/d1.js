// Queries of D1.

/**
 * Runs statements `[[sql, values], …]` as one transaction. Resolves to the rows of the last one, as
 * JSON.
 */
export async function runSql(database, statements) {
  const prepared = JSON.parse(statements).map(([sql, values]) => database.prepare(sql).bind(...values));
  const results = await database.batch(prepared);
  return JSON.stringify(results.at(-1).results);
}

/**
 * The `row`s of a query, after `head`, as a stream of text. The query returns pages: it runs
 * again with the `position` of the last row until it returns no rows.
 */
export async function streamRows(database, sql, value, head) {
  const statement = database.prepare(sql);
  const page = async (position) => (await statement.bind(value, position).all()).results;
  const encoder = new TextEncoder();
  let rows = await page("");
  return new ReadableStream({
    start(controller) {
      controller.enqueue(encoder.encode(head));
    },
    async pull(controller) {
      if (rows.length === 0) return controller.close();
      controller.enqueue(encoder.encode(rows.map(({ row }) => row).join("")));
      rows = await page(rows.at(-1).position);
    },
  });
}
