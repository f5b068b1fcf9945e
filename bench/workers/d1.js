// A D1 database for raw workerd: what the runtime's D1 binding posts, run on the SQLite of one
// object. `GET /totals` returns the rows that were read and written so far.
export default {
  fetch(request, env) {
    return env.KEYS.getByName("db").fetch(request);
  },
};

// Not in the object, which may sleep.
const totals = { rowsRead: 0, rowsWritten: 0 };

export class Database {
  constructor(ctx) {
    this.storage = ctx.storage;
  }

  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/totals") return Response.json(totals);
    const format = searchParams.get("resultsFormat");
    const posted = await request.json();
    try {
      const results = this.storage.transactionSync(() => [posted].flat().map((query) => this.query(query, format)));
      return Response.json(Array.isArray(posted) ? results : results[0]);
    } catch (error) {
      return Response.json({ success: false, error: String(error?.message ?? error) });
    }
  }

  query({ sql, params }, format) {
    const cursor = this.storage.sql.exec(sql, ...(params ?? []));
    const columns = cursor.columnNames;
    const rows = [...cursor.raw()];
    totals.rowsRead += cursor.rowsRead;
    totals.rowsWritten += cursor.rowsWritten;
    const objects = () => rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])));
    return {
      success: true,
      results: format === "ROWS_AND_COLUMNS" ? { columns, rows } : objects(),
      meta: { duration: 0, changes: 0, last_row_id: 0, rows_read: cursor.rowsRead, rows_written: cursor.rowsWritten },
    };
  }
}
