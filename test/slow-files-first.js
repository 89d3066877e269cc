// Decides in which order jest runs the test files. A file that starts processes takes up to five minutes. If such a file
// begins last, the other workers are idle until it ends.
import Sequencer from "@jest/test-sequencer";

const slowFolders = ["test/e2e/", "test/scripts/", "test/saq/fleet/", "test/saq/chaos/", "test/saq/worker/"];

export default class SlowFilesFirst extends Sequencer {
  /**
   * @template {{ path: string }} Test
   * @param {Test[]} tests
   * @returns {Test[]}
   */
  sort(tests) {
    // jest's own order: failed files first, then by the duration of the last run, or by size if there was none.
    const sorted = super.sort(tests);
    const filesOf = (folder) => sorted.filter(({ path }) => path.includes(`/${folder}`));
    const slow = slowFolders.flatMap(filesOf);
    return [...slow, ...sorted.filter((test) => !slow.includes(test))];
  }
}
