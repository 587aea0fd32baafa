// A reporter for Node's test runner: a line of JSON for each test.

export default async function* (events) {
  for await (const { type, data } of events) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    const error = data.details.error?.cause ?? data.details.error;
    yield JSON.stringify({ name: data.name, why_failed: error ? String(error.stack) : null }) + "\n";
  }
}
