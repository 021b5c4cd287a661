// One frame of a video as a JPEG. Never mirrored: what is sent is what was there.

/**
 * @param {HTMLVideoElement} video
 * @param {HTMLCanvasElement} canvas is drawn on, and keeps the frame
 * @param {{maxSide?: number, quality: number}} options `maxSide` in pixels
 * @returns {Promise<Blob>}
 */
export function grabFrame(video, canvas, { maxSide = Infinity, quality }) {
  const { videoWidth, videoHeight } = video;
  if (!videoWidth) {
    return Promise.reject(new Error("the video has no frame yet"));
  }
  const scale = Math.min(1, maxSide / Math.max(videoWidth, videoHeight));
  canvas.width = Math.max(1, Math.round(videoWidth * scale));
  canvas.height = Math.max(1, Math.round(videoHeight * scale));
  const context = canvas.getContext("2d", { alpha: false });
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error("the frame was not encoded"))),
      "image/jpeg",
      quality,
    );
  });
}
