// What the browser can tell before anything is sent. The server stays the judge.

const TYPES = new Set([
  "image/jpeg",
  "image/png",
  "image/webp",
  "image/avif",
  "image/heic",
  "image/heif",
]);
const ENDINGS = /\.(jpe?g|jpe|jfif|png|webp|avif|hei[cf])$/i;
const ZIP = /\.zip$/i;

/**
 * Why these files would be refused, or "" where they may be sent. Of several, each is
 * judged by the server, and those that are no photo are listed with the results.
 * @param {File[]} files at least one
 * @param {{maxBytes: number, maxPhotos: number, maxTotal: number, empty: string,
 *   large: string, many: string, much: string, type: string}} limits
 */
export function refusalOf(files, limits) {
  if (files.length > limits.maxPhotos) {
    return limits.many;
  }
  if (files.reduce((sum, file) => sum + file.size, 0) > limits.maxTotal) {
    return limits.much;
  }
  const [file] = files;
  if (files.length > 1 || ZIP.test(file.name)) {
    return "";
  }
  if (file.size === 0) {
    return limits.empty;
  }
  if (file.size > limits.maxBytes) {
    return limits.large;
  }
  // Some systems do not know HEIC and give it no type: then its name decides.
  if (!TYPES.has(file.type) && !ENDINGS.test(file.name)) {
    return limits.type;
  }
  return "";
}

/** The limits and sentences that the page carries on its form. */
export function limitsOf(form) {
  return {
    maxBytes: Number(form.dataset.maxBytes),
    maxPhotos: Number(form.dataset.maxPhotos),
    maxTotal: Number(form.dataset.maxTotal),
    empty: form.dataset.refuseEmpty,
    large: form.dataset.refuseLarge,
    many: form.dataset.refuseMany,
    much: form.dataset.refuseMuch,
    type: form.dataset.refuseType,
  };
}

/** "2.4 MB", "310 KB". */
export function sizeWords(bytes) {
  return bytes < 1_000_000
    ? `${Math.max(1, Math.round(bytes / 1000))} KB`
    : `${(bytes / 1_000_000).toFixed(1)} MB`;
}
