// The photo to be sent, from the camera or a file: shown on the page, and held by its
// form.

import { grabFrame } from "./frames.js";
import { input, parts } from "./view.js";

const SHOT_QUALITY = 0.92;

export class Shot {
  /** It was chosen as a file; another one is not for the camera. */
  isChosen = false;

  /**
   * What the camera shows now, in its full size.
   * @returns {Promise<File>} rejects where the camera shows nothing
   */
  async grab() {
    const canvas = document.createElement("canvas");
    const blob = await grabFrame(parts.video, canvas, { quality: SHOT_QUALITY });
    return new File([blob], "camera.jpg", { type: blob.type });
  }

  keep(file, { isChosen }) {
    this.isChosen = isChosen;
    if (input.files[0] !== file) {
      const carrier = new DataTransfer();
      carrier.items.add(file);
      input.files = carrier.files;
    }
    URL.revokeObjectURL(parts.shot.src);
    parts.shot.src = URL.createObjectURL(file);
  }

  forget() {
    if (parts.shot.src) {
      URL.revokeObjectURL(parts.shot.src);
      parts.shot.removeAttribute("src");
    }
    input.value = "";
  }
}
