// Starts programs from three threads at once, some of which do not exist.
import java.io.*;
public class Start {
    static volatile boolean failed;
    static void work(int number) {
        try {
            for (int turn = 0; turn < 6; turn++) {
                String word = number + "-" + turn;
                Process process = new ProcessBuilder("echo", word).start();
                String said = new String(process.getInputStream().readAllBytes()).trim();
                if (process.waitFor() != 0 || !said.equals(word)) failed = true;
                try {
                    new ProcessBuilder("/nonexistent/program").start();
                    failed = true;
                } catch (IOException expected) {
                }
            }
        } catch (Exception why) {
            why.printStackTrace();
            failed = true;
        }
    }
    public static void main(String[] arguments) throws Exception {
        Thread[] threads = new Thread[3];
        for (int number = 0; number < threads.length; number++) {
            int mine = number;
            threads[number] = new Thread(() -> work(mine));
            threads[number].start();
        }
        for (Thread thread : threads) thread.join();
        System.exit(failed ? 1 : 0);
    }
}
