import assert from "node:assert/strict";
import { test } from "node:test";

import { parseMetrics } from "../../service/playground/metrics_text.js";

const TEXT = `# HELP triptych_queue_depth Jobs that wait.
# TYPE triptych_queue_depth gauge
triptych_queue_depth{task="images"} 3.0
triptych_queue_depth{task="classify"} 0.0
triptych_redis_up 1.0
triptych_lag_bucket{le="+Inf",route="/v1/jobs/{job_id}"} 1.5e+03
triptych_model_info{model="a \\"b\\\\c\\nd"} 1.0
`;

test("samples are found by name, with their labels", () => {
  const samples = parseMetrics(TEXT);
  assert.deepEqual(samples.get("triptych_queue_depth"), [
    { labels: { task: "images" }, value: 3 },
    { labels: { task: "classify" }, value: 0 },
  ]);
  assert.deepEqual(samples.get("triptych_redis_up"), [{ labels: {}, value: 1 }]);
});

test("braces, exponents and escapes are read", () => {
  const samples = parseMetrics(TEXT);
  const [bucket] = samples.get("triptych_lag_bucket") ?? [];
  assert.deepEqual(bucket, { labels: { le: "+Inf", route: "/v1/jobs/{job_id}" }, value: 1500 });
  const [info] = samples.get("triptych_model_info") ?? [];
  assert.equal(info.labels.model, 'a "b\\c\nd');
});

test("comments are no samples", () => {
  assert.equal(parseMetrics("# HELP x y\n\n").size, 0);
});
