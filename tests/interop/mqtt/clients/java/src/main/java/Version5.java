import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.eclipse.paho.mqttv5.client.IMqttToken;
import org.eclipse.paho.mqttv5.client.MqttCallback;
import org.eclipse.paho.mqttv5.client.MqttClient;
import org.eclipse.paho.mqttv5.client.MqttConnectionOptions;
import org.eclipse.paho.mqttv5.client.MqttDisconnectResponse;
import org.eclipse.paho.mqttv5.client.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.common.MqttException;
import org.eclipse.paho.mqttv5.common.MqttMessage;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;
import org.eclipse.paho.mqttv5.common.packet.UserProperty;

/** Eclipse Paho for Java, MQTT 5: Version5 URL, with tcp, ssl, ws or wss; the authority of a TLS listener is in javax.net.ssl.trustStore */
public final class Version5 {
    private static String url;

    private static final class Client implements MqttCallback {
        final MqttClient paho;
        final LinkedBlockingQueue<MqttMessage> messages = new LinkedBlockingQueue<>();

        Client(String id, boolean clean) throws Exception {
            paho = new MqttClient(url, id, new MemoryPersistence());
            MqttConnectionOptions options = new MqttConnectionOptions();
            options.setCleanStart(clean);
            options.setSessionExpiryInterval(clean ? 0L : 60L);
            options.setReceiveMaximum(5);
            paho.setCallback(this);
            paho.connect(options);
        }

        List<String> take(int count) throws Exception {
            List<String> texts = new ArrayList<>();
            while (texts.size() < count) {
                MqttMessage message = messages.poll(10, TimeUnit.SECONDS);
                Tap.check(message != null, texts);
                texts.add(new String(message.getPayload()));
            }
            return texts;
        }

        void leave() throws Exception {
            paho.disconnect();
            paho.close();
        }

        @Override
        public void messageArrived(String topic, MqttMessage message) {
            messages.add(message);
        }

        @Override
        public void disconnected(MqttDisconnectResponse response) {}

        @Override
        public void mqttErrorOccurred(MqttException error) {}

        @Override
        public void deliveryComplete(IMqttToken token) {}

        @Override
        public void connectComplete(boolean reconnect, String server) {}

        @Override
        public void authPacketArrived(int code, MqttProperties properties) {}
    }

    public static void main(String[] arguments) {
        url = arguments[0];
        Tap tap = new Tap();
        for (int qos = 0; qos <= 2; qos++) {
            final int q = qos;
            tap.test("5: QoS " + q + ", in order", () -> {
                Client client = new Client("java5-" + q, true);
                client.paho.subscribe("java5/" + q, q);
                List<String> sent = new ArrayList<>();
                for (int n = 0; n < 50; n++) {
                    sent.add("" + n);
                    client.paho.publish("java5/" + q, ("" + n).getBytes(), q, false);
                }
                List<String> got = client.take(50);
                Tap.check(got.equals(sent), got);
                client.leave();
            });
        }
        tap.test("5: a session waits", () -> {
            Client client = new Client("java5-s", false);
            client.paho.subscribe("java5/session", 2);
            client.leave();
            Client other = new Client("java5-o", true);
            for (int n = 0; n < 20; n++) {
                other.paho.publish("java5/session", ("" + n).getBytes(), 2, false);
            }
            client = new Client("java5-s", false);
            List<String> got = client.take(20);
            Tap.check(got.get(0).equals("0") && got.get(19).equals("19"), got);
            client.leave();
            new Client("java5-s", true).leave();
            other.leave();
        });
        tap.test("5: properties", () -> {
            Client client = new Client("java5-p", true);
            client.paho.subscribe("java5/p", 1);
            MqttProperties properties = new MqttProperties();
            properties.setContentType("text/plain");
            properties.setResponseTopic("answers");
            properties.setCorrelationData(new byte[] {0, -1});
            List<UserProperty> user = new ArrayList<>();
            user.add(new UserProperty("b", "1"));
            user.add(new UserProperty("a", "2"));
            properties.setUserProperties(user);
            MqttMessage message = new MqttMessage("x".getBytes(), 1, false, properties);
            client.paho.publish("java5/p", message);
            MqttMessage got = client.messages.poll(10, TimeUnit.SECONDS);
            Tap.check(got != null, "nothing");
            MqttProperties found = got.getProperties();
            Tap.check("text/plain".equals(found.getContentType()), found);
            Tap.check("answers".equals(found.getResponseTopic()), found);
            Tap.check(found.getCorrelationData().length == 2, found);
            Tap.check(found.getUserProperties().size() == 2 && found.getUserProperties().get(0).getKey().equals("b"), found);
            client.leave();
        });
        tap.exit();
    }
}
