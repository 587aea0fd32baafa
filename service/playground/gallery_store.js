/**
 * Where this browser keeps its jobs with their pictures, so that a reload loses none of them.
 *
 * IndexedDB, because a start image is too large for localStorage. The jobs of one key are never shown
 * to another. Knows nothing of what a job is, but for its `id` and `createdAt`.
 */

/**
 * @template {{id: string, createdAt: number}} Job
 */
export class GalleryStore {
  /** @type {Promise<IDBDatabase>} */
  #database;
  #owner;

  /** @param {string | null} key of the service, whose digest tells its jobs from others' */
  constructor(key) {
    const folder = new URL(".", document.baseURI).pathname; // two services may share an origin
    this.#database = open(`triptych ${folder}`);
    this.#owner = digest(key ?? "");
  }

  /** @returns {Promise<Job[]>} the oldest first */
  async all() {
    const index = (await this.#jobs("readonly")).index("owner");
    /** @type {{job: Job}[]} */
    const kept = await done(index.getAll(this.#owner));
    return kept.map(({ job }) => job).sort((a, b) => a.createdAt - b.createdAt);
  }

  /** @param {Job} job */
  async save(job) {
    await done((await this.#jobs("readwrite")).put({ id: job.id, owner: this.#owner, job }));
  }

  /** @param {string} id */
  async remove(id) {
    await done((await this.#jobs("readwrite")).delete(id));
  }

  /** @param {IDBTransactionMode} mode */
  async #jobs(mode) {
    return (await this.#database).transaction("jobs", mode).objectStore("jobs");
  }
}

/**
 * @param {string} name
 * @returns {Promise<IDBDatabase>}
 */
async function open(name) { // async: where it is forbidden, the very name `indexedDB` throws
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("jobs", { keyPath: "id" }).createIndex("owner", "owner");
  };
  return done(request);
}

/**
 * @template Result
 * @param {IDBRequest<Result>} request
 * @returns {Promise<Result>}
 */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * 53 bits that tell texts apart and do not tell the text: cyrb53, as browsers have no SHA-256 for
 * pages that came without TLS (https://github.com/bryc/code/blob/master/jshash/experimental/cyrb53.js).
 *
 * @param {string} text
 */
function digest(text) {
  let [high, low] = [0xdeadbeef, 0x41c6ce57];
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    high = Math.imul(high ^ code, 2654435761);
    low = Math.imul(low ^ code, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return (4294967296 * (2097151 & low) + (high >>> 0)).toString(16);
}
