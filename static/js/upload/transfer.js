// Sends a form and tells how far it has got. XMLHttpRequest, because fetch cannot
// tell the progress of an upload.

/** The site answered, and said no; the message is its sentence. */
export class Refused extends Error {}

/** The site did not answer. */
export class Unreachable extends Error {}

/**
 * Send the form's fields; resolves with the address of the page that it leads to.
 * Rejects with Refused, Unreachable, or the signal's AbortError.
 * @param {HTMLFormElement} form
 * @param {{signal: AbortSignal, onProgress: (percent: number) => void}} options
 * @returns {Promise<string>}
 */
export function send(form, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.responseType = "document";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) {
        onProgress((100 * event.loaded) / event.total);
      }
    });
    request.addEventListener("load", () => {
      if (request.status === 200) {
        resolve(request.responseURL);
      } else {
        reject(new Refused(sentenceOf(request)));
      }
    });
    request.addEventListener("error", () => {
      reject(
        new Unreachable("The site could not be reached. Please try again in a moment."),
      );
    });
    request.addEventListener("abort", () => reject(signal.reason));
    signal.addEventListener("abort", () => request.abort());
    request.send(new FormData(form));
  });
}

function sentenceOf(request) {
  const words = request.response?.querySelector("[data-refusal]")?.textContent.trim();
  return words || `The site answered with error ${request.status}. Please try again.`;
}
