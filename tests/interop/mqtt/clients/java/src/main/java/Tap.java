/** One line a test on standard output: `ok NAME` or `not ok NAME: why`. */
final class Tap {
    interface Body {
        void run() throws Exception;
    }

    private boolean failed;

    void test(String name, Body body) {
        try {
            body.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            failed = true;
            error.printStackTrace();
            System.out.println("not ok " + name + ": " + String.valueOf(error).replace('\n', ' '));
        }
    }

    static void check(boolean fine, Object found) {
        if (!fine) {
            throw new AssertionError("found " + found);
        }
    }

    void exit() {
        System.exit(failed ? 1 : 0);
    }
}
