// An object's own storage.

/** All rows of a query, as JSON. */
export function query(storage, sql) {
  return JSON.stringify(storage.sql.exec(sql).toArray());
}

/** Runs one statement. Returns how many rows it wrote, indexes included. */
export function write(storage, sql, values) {
  return storage.sql.exec(sql, ...values).rowsWritten;
}

/**
 * Runs statements `[sql, ...values]` in one transaction. Returns how many rows they wrote, indexes
 * included.
 */
export function writeAll(storage, statements) {
  return storage.transactionSync(() => {
    let rows = 0;
    for (const [sql, ...values] of statements) rows += storage.sql.exec(sql, ...values).rowsWritten;
    return rows;
  });
}

/** The size of the object's database, in bytes. */
export function databaseSize(storage) {
  return storage.sql.databaseSize;
}
